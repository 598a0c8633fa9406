//! Stage 0: the user and mount namespace, before any thread exists.
