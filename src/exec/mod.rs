//! One process in a container.
