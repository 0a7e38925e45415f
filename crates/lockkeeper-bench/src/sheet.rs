//! What a scenario comes to: sheets of rows and columns, with the figures of all rounds in their
//! cells, and how ours compare with them.

use crate::stats::Quarters;
use serde::Serialize;

/// What figures count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    /// Acquire + release, in a second.
    PairsPerSecond,
    /// Millionths of a second.
    Micros,
    /// Thousandths of a second.
    Millis,
    /// Bytes.
    Bytes,
    /// The share of the luckiest over that of the unluckiest.
    Share,
}

impl Unit {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Unit::PairsPerSecond => "pairs/s",
            Unit::Micros => "µs",
            Unit::Millis => "ms",
            Unit::Bytes => "bytes",
            Unit::Share => "most / least",
        }
    }

    /// Whether more of it is better.
    pub(crate) fn more_is_better(self) -> bool {
        self == Unit::PairsPerSecond
    }
}

/// What is to be reached beside a row.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// Ours are at least so many times better.
    Ratio(f64),
    /// The base is at most so many times better.
    AtMostRatio(f64),
    /// The row itself is at most this.
    AtMost(f64),
}

/// A bound, and in which columns it counts.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) bound: Bound,
    /// Numbers of columns; none: in each.
    pub(crate) columns: Vec<usize>,
}

/// One who is measured.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Whether it is Lockkeeper.
    pub(crate) ours: bool,
    /// Why it was not measured.
    pub(crate) missing: Option<String>,
    /// A figure for each round in which it was measured, by columns.
    pub(crate) cells: Vec<Vec<Figure>>,
    pub(crate) target: Option<Target>,
}

/// What one round gave.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) round: usize,
    pub(crate) figure: f64,
}

/// Rows that do the same work.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(crate) struct Sheet {
    pub(crate) scenario: String,
    pub(crate) title: String,
    pub(crate) unit: Unit,
    /// What the columns are, such as clients.
    pub(crate) across: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// The row that all others are compared with: its number.
    pub(crate) base: usize,
}

impl Sheet {
    /// The quarters of a cell.
    pub(crate) fn quarters(&self, row: usize, column: usize) -> Option<Quarters> {
        Quarters::of(self.rows[row].cells.get(column)?.iter().map(|figure| figure.figure))
    }

    /// How many times better the base is than a row: the quarters over the rounds in which both
    /// were measured, because what disturbed one may well have disturbed the other.
    pub(crate) fn ratio(&self, row: usize, column: usize) -> Option<Quarters> {
        let base = self.rows[self.base].cells.get(column)?;
        let ratios = self.rows[row].cells.get(column)?.iter().filter_map(|other| {
            let ours = base.iter().find(|figure| figure.round == other.round)?;
            // Nothing done in a time too short for it is compared with nothing.
            (ours.figure > 0.0 && other.figure > 0.0).then(|| match self.unit.more_is_better() {
                true => ours.figure / other.figure,
                false => other.figure / ours.figure,
            })
        });
        Quarters::of(ratios)
    }

    /// Whether a row's target is met, and in which columns it is not.
    pub(crate) fn verdict(&self, row: usize) -> Option<Verdict> {
        let target = self.rows[row].target.as_ref()?;
        let (mut missed, mut measured) = (Vec::new(), 0);
        for column in 0..self.columns.len() {
            if !target.columns.is_empty() && !target.columns.contains(&column) {
                continue;
            }
            let is_met = match target.bound {
                Bound::Ratio(least) => self.ratio(row, column).map(|ratio| ratio.median >= least),
                Bound::AtMostRatio(most) => {
                    self.ratio(row, column).map(|ratio| ratio.median <= most)
                }
                Bound::AtMost(most) => self.quarters(row, column).map(|cell| cell.median <= most),
            };
            measured += usize::from(is_met.is_some());
            if is_met == Some(false) {
                missed.push(self.columns[column].clone());
            }
        }
        (measured > 0).then_some(Verdict { bound: target.bound, missed })
    }
}

/// How a target came out.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Verdict {
    pub(crate) bound: Bound,
    /// The columns in which it was missed.
    pub(crate) missed: Vec<String>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Ours with 100 and 300 pairs/s, theirs with half of that, one that is not there.
    pub(crate) fn sheet() -> Sheet {
        let cell = |figures: [f64; 3]| -> Vec<Figure> {
            let figures = figures.into_iter().enumerate();
            figures.map(|(round, figure)| Figure { round, figure }).collect()
        };
        let row = |name: &str, cells| Row {
            name: name.to_owned(),
            ours: false,
            missing: None,
            cells,
            target: None,
        };
        let mut ours = row("ours", vec![cell([90.0, 100.0, 120.0]), cell([290.0, 300.0, 310.0])]);
        ours.ours = true;
        let mut theirs = row("theirs", vec![cell([45.0, 50.0, 60.0]), cell([145.0, 150.0, 620.0])]);
        theirs.target = Some(Target { bound: Bound::Ratio(1.5), columns: vec![] });
        let mut gone = row("gone", vec![vec![], vec![]]);
        gone.missing = Some("not installed".to_owned());
        gone.target = Some(Target { bound: Bound::Ratio(1.5), columns: vec![] });
        Sheet {
            scenario: "socket".to_owned(),
            title: "uncontended".to_owned(),
            unit: Unit::PairsPerSecond,
            across: "clients".to_owned(),
            columns: vec!["1".to_owned(), "16".to_owned()],
            rows: vec![ours, theirs, gone],
            base: 0,
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let sheet = sheet();
        let ratio = |column| sheet.ratio(1, column).map(|ratio| ratio.median);
        assert_eq!((ratio(0), ratio(1)), (Some(2.0), Some(2.0)), "the odd round does not decide");
        assert_eq!(sheet.ratio(2, 0), None);
        let less = Sheet { unit: Unit::Micros, ..sheet };
        assert_eq!(less.ratio(1, 0).map(|ratio| ratio.median), Some(0.5), "less would be better");
    }

    #[test]
    fn a_round_without_its_counterpart_does_not_count() {
        let mut sheet = sheet();
        sheet.rows[0].cells[0].remove(1);
        sheet.rows[1].cells[0][1].figure = 1.0;
        assert_eq!(sheet.ratio(1, 0).map(|ratio| ratio.median), Some(2.0));
    }

    #[test]
    fn targets_are_judged_where_they_count() {
        let mut sheet = sheet();
        let missed = |sheet: &Sheet| sheet.verdict(1).map(|verdict| verdict.missed);
        assert_eq!(missed(&sheet), Some(vec![]));
        sheet.rows[1].target = Some(Target { bound: Bound::Ratio(2.1), columns: vec![1] });
        assert_eq!(missed(&sheet), Some(vec!["16".to_owned()]));
        sheet.rows[1].target = Some(Target { bound: Bound::AtMost(60.0), columns: vec![] });
        assert_eq!(missed(&sheet), Some(vec!["16".to_owned()]));
        assert_eq!(sheet.verdict(2), None, "what was not measured has missed nothing");
        assert_eq!(sheet.verdict(0), None);
    }
}
