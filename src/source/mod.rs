//! Where content comes from: images, the build context.
