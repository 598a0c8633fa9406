//! Dockerfile instructions to LLB.
