//! Secrets and ssh agents given on the command line.
