//! The OCI distribution client: resolve, pull, push.
