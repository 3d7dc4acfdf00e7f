<?php
// Runs every function of the workers on 127.0.0.1, port $argv[1], and prints what it hears, a line for each function.
$client = new GearmanClient();
$client->addServer('127.0.0.1', (int)$argv[1]);
$client->setTimeout(20000);
$heard = [];
$client->setDataCallback(function (GearmanTask $task) use (&$heard) { $heard[] = 'data ' . $task->data(); });
$client->setWarningCallback(function (GearmanTask $task) use (&$heard) { $heard[] = 'warning ' . $task->data(); });
$client->setStatusCallback(function (GearmanTask $task) use (&$heard) {
    $heard[] = 'status ' . $task->taskNumerator() . '/' . $task->taskDenominator();
});
$client->setCompleteCallback(function (GearmanTask $task) use (&$heard) { $heard[] = 'complete ' . $task->data(); });
$client->setFailCallback(function (GearmanTask $task) use (&$heard) { $heard[] = 'failed'; });
$client->setExceptionCallback(function (GearmanTask $task) use (&$heard) {
    // Perl's workers freeze the text: Storable puts some control bytes around it.
    $heard[] = 'exception ' . preg_replace('/[[:cntrl:]]/', '', $task->data());
});

foreach (['reverse', 'progress', 'fail', 'throw'] as $function) {
    $heard = [];
    $client->addTask($function, "hello");
    $client->runTasks();
    echo $function, ': ', implode(', ', $heard), "\n";
}

$handle = $client->doBackground('reverse', 'hello', 'php-background');
do {
    [$known, $running] = $client->jobStatus($handle);
    usleep(5000);
} while ($known);
echo "background: ended\n";
