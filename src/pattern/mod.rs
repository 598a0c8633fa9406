//! Go's path patterns and .dockerignore, exactly.
