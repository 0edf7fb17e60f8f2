"""What a container finds around it: variables, hosts file, host name, resolver."""
