# Runs every function of the workers on 127.0.0.1, port $ARGV[0], and prints what it hears, a line for each function.
use strict;
use warnings;
use Gearman::Client;
use Gearman::Task;
use Time::HiRes 'sleep';

my $client = Gearman::Client->new(job_servers => ["127.0.0.1:$ARGV[0]"], exceptions => 1);

for my $function (qw(reverse progress fail throw)) {
    my @heard;
    my $hear = sub { my $what = shift; sub { push @heard, join ' ', $what, map { ref $_ ? $$_ : $_ } grep { defined } @_ } };
    my $tasks = $client->new_task_set;
    $tasks->add_task(Gearman::Task->new($function, \'hello', {
        on_complete  => $hear->('complete'),
        on_data      => $hear->('data'),
        on_warning   => $hear->('warning'),
        on_fail      => sub { push @heard, 'failed' },
        # Perl's workers freeze the text: Storable puts some control bytes around it.
        on_exception => sub { push @heard, 'exception ' . $_[0] =~ s/[[:cntrl:]]//gr },
        on_status    => sub { push @heard, "status $_[0]/$_[1]" },
        retry_count  => 0,
    }));
    $tasks->wait(timeout => 20);
    print "$function: ", join(', ', @heard), "\n";
}

my $handle = $client->dispatch_background('reverse', \'hello', { uniq => 'perl-background' });
my $status;
do { $status = $client->get_status($handle); sleep 0.005 } while $status && $status->known;
print "background: ended\n";
