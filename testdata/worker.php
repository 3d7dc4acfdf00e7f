<?php
// A worker that knows nothing of the gateway. Usage: worker.php host:port
$w = new GearmanWorker();
[$host, $port] = explode(':', $argv[1]);
$w->addServer($host, (int) $port);
$w->setId('php');
$w->addFunction('php_upper', fn ($job) => strtoupper($job->workload()));
$w->addFunction('php_steps', function ($job) {
    $job->sendData('first,');
    $job->sendWarning('mind the gap');
    $job->sendStatus(1, 2);
    usleep(200000);
    $job->sendStatus(2, 2);
    return 'last';
});
$w->addFunction('php_fail', function ($job) { $job->sendFail(); });
$w->addFunction('php_throw', function ($job) { $job->sendException('out of paper'); });
$w->addFunction('php_order', function ($job) use (&$order) { return $order = ($order ?? '') . $job->workload(); });
while ($w->work() || $w->returnCode() === GEARMAN_WORK_FAIL || $w->returnCode() === GEARMAN_WORK_EXCEPTION || $w->returnCode() === GEARMAN_TIMEOUT) {
}
