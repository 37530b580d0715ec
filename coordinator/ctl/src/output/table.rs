//! Aligned columns without lines: easy to read, to copy and to cut with awk.

use super::{Paint, Tone};

/// Which side a column is aligned to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Column {
    Left(&'static str),
    Right(&'static str),
}

/// Rows under a heading. Widths count characters, colours come after padding.
pub(crate) struct Table {
    indent: usize,
    columns: Vec<Column>,
    rows: Vec<Vec<(String, Option<Tone>)>>,
}

impl Table {
    pub fn new(indent: usize, columns: &[Column]) -> Self {
        Self { indent, columns: columns.to_vec(), rows: Vec::new() }
    }

    /// A row; each cell with an optional tone. An empty cell is shown as `-`.
    pub fn row(&mut self, cells: impl IntoIterator<Item = (String, Option<Tone>)>) {
        let row: Vec<_> = cells
            .into_iter()
            .map(|(text, tone)| if text.is_empty() { ("-".to_owned(), tone) } else { (text, tone) })
            .collect();
        assert_eq!(row.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(row);
    }

    /// A row without tones.
    pub fn plain(&mut self, cells: impl IntoIterator<Item = String>) {
        self.row(cells.into_iter().map(|text| (text, None)));
    }

    pub fn render(&self, paint: &Paint) -> String {
        let heading = |column: &Column| match column {
            Column::Left(name) | Column::Right(name) => *name,
        };
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|i| {
                let cells = self.rows.iter().map(|row| row[i].0.chars().count());
                cells.chain([heading(&self.columns[i]).len()]).max().unwrap_or(0)
            })
            .collect();
        let headings: Vec<_> =
            self.columns.iter().map(|column| (heading(column).to_owned(), Some(Tone::Heading))).collect();
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            text.push_str(&" ".repeat(self.indent));
            for (i, (cell, tone)) in row.iter().enumerate() {
                let fill = " ".repeat(widths[i] - cell.chars().count());
                let cell = tone.map_or_else(|| cell.clone(), |tone| paint.tone(tone, cell));
                let last = i + 1 == row.len();
                match self.columns[i] {
                    Column::Left(_) if last => text.push_str(&cell),
                    Column::Left(_) => text.extend([cell.as_str(), &fill, "  "]),
                    Column::Right(_) => text.extend([fill.as_str(), &cell, if last { "" } else { "  " }]),
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_with_and_without_colour() {
        let mut table = Table::new(2, &[Column::Left("NAME"), Column::Right("LAG"), Column::Left("SYNC")]);
        table.row([("eu-north-1".into(), Some(Tone::Good)), (String::new(), None), ("yes".into(), None)]);
        table.plain(["ü".into(), "1.5 kB".into(), "no".into()]);
        let plain = table.render(&Paint::plain());
        assert_eq!(
            plain,
            "  NAME           LAG  SYNC\n  eu-north-1       -  yes\n  ü           1.5 kB  no\n"
        );
        let colour = table.render(&Paint::new(crate::cli::Color::Always, false));
        let stripped =
            ["\x1b[1m", "\x1b[32m", "\x1b[0m"].iter().fold(colour, |text, code| text.replace(code, ""));
        assert_eq!(stripped, plain);
    }
}
