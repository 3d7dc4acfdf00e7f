#!/bin/sh
# A handler that is a command: the workload is standard input, the result standard output. What it does depends on the workload, to show
# everything that a handler can do.
workload=$(cat)
case $workload in
progress) echo '{"progress":[1,2]}' >&3 && echo half ;;    # file descriptor 3 takes lines of JSON
warning) echo 'mind the gap' >&2 && echo done ;;           # standard error becomes a warning
exception) echo 'no such word' >&2 && exit 1 ;;            # … and tells why the job failed
later) exit 75 ;;                                          # EX_TEMPFAIL: try again later, if the job's policy allows it
never) exit 100 ;;                                         # failed, and would fail again
slow) exec sleep 60 ;;                                     # the configuration gives it a second
*) printf %s "$workload" | tr a-z A-Z ;;
esac
