//! Vertices, edges and cache keys: decides what runs, what is cached, and runs it; no I/O.
