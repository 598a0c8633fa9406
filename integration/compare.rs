//! The same Dockerfiles built by buildah: the same file trees.
