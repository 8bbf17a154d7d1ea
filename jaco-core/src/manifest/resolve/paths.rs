//! Paths as text: joined and cleaned, never looked up.

/// The directory of a path; empty for a bare name.
pub(super) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(slash) => &path[..slash],
        None => "",
    }
}

/// A path without its directory.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `path` as seen from where `directory` counts from.
pub(super) fn join(directory: &str, path: &str) -> String {
    if path.starts_with('/') || directory.is_empty() {
        return clean(path);
    }
    clean(&format!("{directory}/{path}"))
}

/// Like [`join`], and still recognisable as a path where a bare word would be a volume's name.
pub(super) fn join_explicit(directory: &str, path: &str) -> String {
    let joined = join(directory, path);
    match joined.starts_with(['/', '.']) {
        true => joined,
        false => format!("./{joined}"),
    }
}

/// Without `.` and with `..` taken back where that is possible.
fn clean(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." if names.last().is_some_and(|last| *last != "..") => {
                names.pop();
            }
            ".." if path.starts_with('/') => {}
            name => names.push(name),
        }
    }
    let joined = names.join("/");
    match (path.starts_with('/'), joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_join_and_clean() {
        assert_eq!(join("", "./a/../b"), "b");
        assert_eq!(join("x/y", "../a"), "x/a");
        assert_eq!(join("x", "/a/./b"), "/a/b");
        assert_eq!(join("x", "../../a"), "../a");
        assert_eq!(join("/", "../a"), "/a");
        assert_eq!(join("x", ".."), ".");
        assert_eq!(join_explicit("x", "./a"), "./x/a");
        assert_eq!(join_explicit("x", "../../a"), "../a");
        assert_eq!(parent("a/b"), "a");
        assert_eq!(parent("/b"), "/");
        assert_eq!(parent("b"), "");
    }
}
