# A worker that knows nothing of the gateway. Usage: worker.pl host:port
use strict;
use warnings;
use Gearman::Worker;

my $w = Gearman::Worker->new(job_servers => [$ARGV[0]]);
$w->register_function(perl_upper => sub { uc $_[0]->arg });
$w->register_function(perl_die => sub { die "out of ink\n" });
$w->register_function(perl_steps => sub { my $j = shift; $j->set_status(1, 2); select undef, undef, undef, 0.2; $j->set_status(2, 2); "done" });
$w->work while 1;
