//! A real Debian image, built, pushed and run by other tools.
