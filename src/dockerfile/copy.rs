//! COPY and ADD: flags, sources and destination.
//!
//! In: flag words, arguments, and the heredocs that belong to them. Out: [`InstructionKind`].

use std::collections::BTreeMap;

use super::error::Problem;
use super::flags::{Flags, Takes};
use super::heredoc;
use super::instruction::{AddInstruction, CopyInstruction, Heredoc, InstructionKind, SourcesAndDest};
use super::parse::MAX_FILE;

/// Reads COPY.
pub(crate) fn copy(words: &[String], args: &[String], heredocs: &[Heredoc]) -> Result<InstructionKind, Problem> {
    enough("COPY", args)?;
    let known = [
        ("chown", Takes::One),
        ("from", Takes::One),
        ("chmod", Takes::One),
        ("link", Takes::Bool),
        ("exclude", Takes::Many),
        ("parents", Takes::Bool),
    ];
    let flags = Flags::check(words, &known)?;
    Ok(InstructionKind::Copy(CopyInstruction {
        files: sources_and_dest("COPY", args, heredocs)?,
        from: flags.one("from"),
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.boolean("link").unwrap_or(false),
        parents: flags.boolean("parents").unwrap_or(false),
        exclude: flags.many("exclude"),
    }))
}

/// Reads ADD.
pub(crate) fn add(words: &[String], args: &[String], heredocs: &[Heredoc]) -> Result<InstructionKind, Problem> {
    enough("ADD", args)?;
    let known = [
        ("chown", Takes::One),
        ("chmod", Takes::One),
        ("link", Takes::Bool),
        ("keep-git-dir", Takes::Bool),
        ("checksum", Takes::One),
        ("unpack", Takes::Bool),
        ("exclude", Takes::Many),
    ];
    let flags = Flags::check(words, &known)?;
    Ok(InstructionKind::Add(AddInstruction {
        files: sources_and_dest("ADD", args, heredocs)?,
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.boolean("link").unwrap_or(false),
        keep_git_dir: flags.boolean("keep-git-dir"),
        checksum: flags.one("checksum"),
        unpack: flags.boolean("unpack"),
        exclude: flags.many("exclude"),
    }))
}

fn enough(keyword: &str, args: &[String]) -> Result<(), Problem> {
    if args.len() >= 2 {
        return Ok(());
    }
    Err(Problem::meaning(format!(
        "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
    ))
    .hinted(format!("write `{keyword} SOURCE DESTINATION`")))
}

fn sources_and_dest(keyword: &str, args: &[String], heredocs: &[Heredoc]) -> Result<SourcesAndDest, Problem> {
    let mut files = SourcesAndDest::default();
    let Some((dest, sources)) = args.split_last() else { return Ok(files) };
    if announced(dest).is_some() {
        let message = format!("{keyword} cannot accept a heredoc as a destination");
        let hint = format!("the destination comes last: `{keyword} <<EOF /path`");
        return Err(Problem::meaning(message).marking(dest.as_str()).hinted(hint));
    }
    files.dest = dest.clone();
    // Of two with one name, the last body counts for both.
    let bodies: BTreeMap<&str, &Heredoc> = heredocs.iter().map(|h| (h.name.as_str(), h)).collect();
    let mut total = 0;
    for source in sources {
        let Some(heredoc) = announced(source) else {
            files.paths.push(source.clone());
            continue;
        };
        let found = bodies.get(heredoc.name.as_str()).copied();
        total += found.map_or(0, |found| found.body.len());
        if total > MAX_FILE {
            return Err(Problem::meaning(format!("the heredocs of one {keyword} hold more than {MAX_FILE} bytes")));
        }
        let (body, bytes) = found.map(|found| (found.body.clone(), found.bytes.clone())).unwrap_or_default();
        files.inline.push(Heredoc { body, bytes, ..heredoc }.chomped());
    }
    Ok(files)
}

/// Reads an argument as a heredoc; one whose delimiter cannot be read is a path.
fn announced(word: &str) -> Option<Heredoc> {
    heredoc::in_word(word).ok().flatten()
}
