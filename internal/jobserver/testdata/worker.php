<?php
// A worker on 127.0.0.1, port $argv[1], until it is killed: one function for each way a job can end.
$worker = new GearmanWorker();
$worker->addServer('127.0.0.1', (int)$argv[1]);
$worker->setId('php-worker');
$worker->addFunction('reverse', fn(GearmanJob $job) => strrev($job->workload()));
$worker->addFunction('progress', function (GearmanJob $job) {
    $job->sendStatus(1, 2);
    $job->sendData('half ');
    $job->sendWarning('careful');
    $job->sendStatus(2, 2);
    return 'whole';
});
$worker->addFunction('fail', function (GearmanJob $job) {
    $job->sendFail();
});
$worker->addFunction('throw', function (GearmanJob $job) {
    $job->sendException('boom');
});
while ($worker->work() || $worker->returnCode() === GEARMAN_WORK_FAIL) {
}
fwrite(STDERR, $worker->error() . "\n");
exit(1);
