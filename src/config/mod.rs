//! Configuration files and environment to settings.
