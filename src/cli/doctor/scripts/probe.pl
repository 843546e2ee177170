eval { require LWP::UserAgent; require LWP::Protocol::https; 1 } or exit 77;
print "version=$LWP::UserAgent::VERSION\n";
my $answer = LWP::UserAgent->new->get($ARGV[0]);
die $answer->status_line, "\n" if ($answer->header("Client-Warning") // "") eq "Internal response";
print "status=", $answer->code, "\n";
