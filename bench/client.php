<?php
// Loads a job server by php-gearman, one job at a time, and prints what load.go reads.
// Usage: client.php host port background|sync workload seconds
[, $host, $port, $work, $workload, $seconds] = $argv;
$client = new GearmanClient();
$client->addServer($host, (int) $port);
$took = [];
$errors = 0;
$begin = hrtime(true);
$end = $begin + (int) ($seconds * 1e9);
for ($now = $begin; $now < $end; $now = $then) {
    if ($work === 'background') {
        $client->doBackground('reverse', $workload);
    } else {
        $client->doNormal('reverse', $workload);
    }
    $errors += $client->returnCode() === GEARMAN_SUCCESS ? 0 : 1;
    $then = hrtime(true);
    $took[] = intdiv($then - $now, 1000);
}
$n = count($took);
sort($took);
$used = getrusage();
printf('{"requests":%d,"us":%d,"p50":%d,"p99":%d,"errors":%d,"cpu":%d,"rss":%d}' . "\n", $n, intdiv($now - $begin, 1000), $took[intdiv($n, 2)],
    $took[intdiv($n * 99, 100)], $errors, ($used['ru_utime.tv_sec'] + $used['ru_stime.tv_sec']) * 1000000 + $used['ru_utime.tv_usec'] + $used['ru_stime.tv_usec'],
    $used['ru_maxrss']);
