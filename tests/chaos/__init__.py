"""What a service must live through, done to it on purpose, from a seed: `./run.sh chaos`. Takes minutes to hours."""
