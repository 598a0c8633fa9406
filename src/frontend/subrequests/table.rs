//! Tables as Go's `text/tabwriter` aligns them.

/// Returns rows of equally many cells; each column but the last is as wide as its widest cell and `padding` more.
pub(super) fn table<const N: usize>(padding: usize, rows: &[[&str; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0) + padding;
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == N {
                true => out.push_str(cell),
                false => out.push_str(&format!("{cell:width$}", width = widths[column])),
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_column_is_as_it_is() {
        assert_eq!(table(3, &[["A", "B"], ["long", ""], ["é", "b"]]), "A      B\nlong   \né      b\n");
    }
}
