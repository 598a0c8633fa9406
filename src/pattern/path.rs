//! Lexical paths.
//!
//! In: slash-separated paths. Out: the same, cleaned; the file system is not asked.

/// Cleans a path lexically, as Go's `path.Clean` does.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.last().is_some_and(|last| *last != "..") {
            parts.pop();
        } else if !rooted {
            parts.push(part);
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_paths() {
        let cases = [("", "."), ("/", "/"), ("/../a", "/a"), ("a/../..", ".."), ("a//b/./c/", "a/b/c"), ("./", ".")];
        for (path, want) in cases {
            assert_eq!(clean(path), want, "{path}");
        }
    }
}
