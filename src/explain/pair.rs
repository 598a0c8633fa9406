//! Which step of one build is which of another: by stage and likeness of the command, in order.
//!
//! In: the names of both builds' steps. Out: per step the one it was. Steps that are alike keep their order: the alignment of
//! two stages is the one with the most likeness, and what is left of stages with other names is aligned after that.

use std::collections::{BTreeMap, BTreeSet};

/// Longer builds are paired by equal names only: an alignment takes the product of both lengths.
const LONGEST: usize = 2000;

/// A step's name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name<'a> {
    /// Platform and stage; empty for the only stage.
    pub stage: &'a str,
    /// The instruction.
    pub command: &'a str,
}

impl<'a> Name<'a> {
    /// Takes `[stage 2/5] COPY . .` apart.
    pub fn of(name: &'a str) -> Self {
        let Some((inside, command)) = name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) else {
            return Self { stage: "", command: name };
        };
        let (before, last) = inside.rsplit_once(' ').unwrap_or(("", inside));
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let counted = last.split_once('/').is_some_and(|(at, of)| number(at.trim()) && number(of));
        Self { stage: if counted { before.trim_end() } else { inside }, command }
    }

    fn keyword(&self) -> &str {
        self.command.split_whitespace().next().unwrap_or_default()
    }
}

/// Returns, for each of the steps `now`, the step `before` that it was.
pub fn pair(before: &[&str], now: &[&str]) -> Vec<Option<usize>> {
    let (old, new): (Vec<Name<'_>>, Vec<Name<'_>>) =
        (before.iter().map(|n| Name::of(n)).collect(), now.iter().map(|n| Name::of(n)).collect());
    let mut pairs = vec![None; new.len()];
    let mut stages: BTreeMap<&str, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (at, name) in old.iter().enumerate() {
        stages.entry(name.stage).or_default().0.push(at);
    }
    for (at, name) in new.iter().enumerate() {
        stages.entry(name.stage).or_default().1.push(at);
    }
    for (olds, news) in stages.into_values() {
        align((&old, &olds), (&new, &news), &mut pairs);
    }
    let taken: BTreeSet<usize> = pairs.iter().flatten().copied().collect();
    let olds: Vec<usize> = (0..old.len()).filter(|at| !taken.contains(at)).collect();
    let news: Vec<usize> = (0..new.len()).filter(|at| pairs[*at].is_none()).collect();
    align((&old, &olds), (&new, &news), &mut pairs);
    pairs
}

/// Aligns two sequences so that the sum of likenesses is greatest.
fn align(old: (&[Name<'_>], &[usize]), new: (&[Name<'_>], &[usize]), pairs: &mut [Option<usize>]) {
    let ((old, olds), (new, news)) = (old, new);
    if olds.len() > LONGEST || news.len() > LONGEST {
        let mut by_name: BTreeMap<&str, usize> = olds.iter().rev().map(|at| (old[*at].command, *at)).collect();
        for at in news {
            pairs[*at] = by_name.remove(new[*at].command);
        }
        return;
    }
    let width = news.len() + 1;
    let mut best = vec![0u32; (olds.len() + 1) * width];
    let like: Vec<u32> = olds.iter().flat_map(|o| news.iter().map(|n| likeness(&old[*o], &new[*n]))).collect();
    for i in (0..olds.len()).rev() {
        for j in (0..news.len()).rev() {
            let like = like[i * news.len() + j];
            let both = if like > 0 { like + best[(i + 1) * width + j + 1] } else { 0 };
            best[i * width + j] = both.max(best[(i + 1) * width + j]).max(best[i * width + j + 1]);
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < olds.len() && j < news.len() {
        let (like, here) = (like[i * news.len() + j], best[i * width + j]);
        if like > 0 && here == like + best[(i + 1) * width + j + 1] {
            pairs[news[j]] = Some(olds[i]);
            (i, j) = (i + 1, j + 1);
        } else if here == best[(i + 1) * width + j] {
            i += 1;
        } else {
            j += 1;
        }
    }
}

/// How like two commands are: 0 for two instructions, most for equal ones.
fn likeness(a: &Name<'_>, b: &Name<'_>) -> u32 {
    if a.command == b.command {
        return 1000;
    }
    if a.keyword() != b.keyword() || a.keyword().is_empty() {
        return 0;
    }
    let words = |name: &Name<'_>| -> BTreeSet<String> {
        let split = name.command.split(|c: char| c.is_whitespace() || "/@:=".contains(c));
        split.skip(1).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let (a, b) = (words(a), words(b));
    let common = a.intersection(&b).count();
    1 + u32::try_from(200 * common / (a.len() + b.len()).max(1)).unwrap_or(0)
}
