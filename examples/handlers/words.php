<?php
// A persistent handler (docs/persistent.md) that does what words.sh does, without a new process for each job.
ini_set('display_errors', 'stderr');

function send(string $kind, string $body): void
{
    fwrite(STDOUT, "$kind " . strlen($body) . "\n$body");
}

while (fwrite(STDOUT, "ready\n") && ($line = fgets(STDIN)) !== false) {
    [, $length] = explode(' ', $line, 3);
    $workload = $length > 0 ? stream_get_contents(STDIN, (int) $length) : '';
    switch ($workload) {
        case 'progress':
            fwrite(STDOUT, "progress 1 2\n");
            send('result', 'half');
            break;
        case 'warning':
            send('warning', 'mind the gap');
            send('result', 'done');
            break;
        case 'exception':
            send('exception', 'no such word');
            break;
        case 'slow':
            sleep(60); // the configuration gives it a second; then another process takes its place
            break;
        default:
            send('result', strtoupper($workload));
    }
}
