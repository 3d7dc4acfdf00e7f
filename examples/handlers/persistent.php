<?php
// A persistent handler in PHP: it answers with the workload in upper case. See docs/persistent.md.
ini_set('display_errors', 'stderr'); // standard output is for frames alone

function send(string $kind, string $body): void
{
    fwrite(STDOUT, "$kind " . strlen($body) . "\n$body");
}

while (fwrite(STDOUT, "ready\n") && ($line = fgets(STDIN)) !== false) {
    [, $length, $fields] = explode(' ', $line, 3);
    $workload = $length > 0 ? stream_get_contents(STDIN, (int) $length) : '';
    $job = json_decode($fields); // $job->id, $job->function, …
    try {
        if ($workload === '') {
            throw new RuntimeException("$job->function needs some text");
        }
        fwrite(STDOUT, "progress 1 2\n");
        send('result', strtoupper($workload));
    } catch (Throwable $e) {
        send('exception', $e->getMessage());
    }
}
