//! What marks and names things in an OCI layout (OCI image-spec 1.1, image-layout.md, annotations.md).

use oci_spec::image::OciLayout;

/// Name of the file that marks a layout.
pub const MARKER: &str = "oci-layout";
/// Its content.
pub const MARKER_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Annotation with the tag of an image.
pub const REF_NAME: &str = oci_spec::image::ANNOTATION_REF_NAME;
/// Annotation with the time an image was made.
pub const CREATED: &str = oci_spec::image::ANNOTATION_CREATED;
/// Annotation with the full name of an image, as containerd writes it.
pub const IMAGE_NAME: &str = "io.containerd.image.name";

/// Returns whether the marker is that of a layout that can be read: of any version 1.
pub fn is_readable(marker: &[u8]) -> bool {
    OciLayout::from_reader(marker).is_ok_and(|layout| layout.image_layout_version().starts_with("1."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_two_on_are_not_read() {
        assert!(is_readable(MARKER_CONTENT) && is_readable(br#"{"imageLayoutVersion":"1.1.0","more":1}"#));
        for marker in [&b"{}"[..], b"", br#"{"imageLayoutVersion":"2.0.0"}"#, br#"{"imageLayoutVersion":1}"#] {
            assert!(!is_readable(marker), "{}", String::from_utf8_lossy(marker));
        }
    }
}
