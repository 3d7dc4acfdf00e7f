#!/bin/sh
# A persistent handler for the shell: it answers with the workload in upper case. See docs/persistent.md.
# Payloads stay in files, in the working directory that the process has for itself: a variable loses NULs and last line ends.

send() { # send KIND FILE
	echo "$1 $(wc -c <"$2")"
	cat "$2"
}

while echo ready && read -r _ length fields; do # fields is JSON, for jq
	head -c "$length" >workload
	if [ ! -s workload ]; then
		echo "the function needs some text" >reason
		send exception reason
		continue
	fi
	echo "progress 1 2"
	tr a-z A-Z <workload >result && send result result || send failed result
done
