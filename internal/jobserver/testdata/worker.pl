# A worker on 127.0.0.1, port $ARGV[0], until it is killed: one function for each way a job can end.
use strict;
use warnings;
use Gearman::Worker;

my $worker = Gearman::Worker->new(job_servers => ["127.0.0.1:$ARGV[0]"]);
$worker->register_function(reverse => sub { scalar reverse $_[0]->arg });
$worker->register_function(progress => sub {
    my $job = shift;
    $job->set_status(1, 2);
    $worker->send_work_data($job, 'half ');
    $worker->send_work_warning($job, 'careful');
    $job->set_status(2, 2);
    return 'whole';
});
$worker->register_function(fail => sub { undef });
$worker->register_function(throw => sub { die "boom\n" });
$worker->work while 1;
