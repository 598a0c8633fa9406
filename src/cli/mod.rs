//! The command line: flags to a build request, and what a failure prints.
