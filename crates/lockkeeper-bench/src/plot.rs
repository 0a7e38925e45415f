//! Sheets as a picture: a panel for each, with a bar for each row.
//!
//! Ratios between rows are what counts and they span thousands, so the axes go by powers of ten.

use crate::{
    sheet::Sheet,
    stats::short,
    trouble::{Result, Trouble},
};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::path::Path;

const WIDTH: u32 = 1000;
const ROW: u32 = 24;
const HEAD: u32 = 56;
/// Where bars begin and end.
const LEFT: i32 = 380;
const RIGHT: i32 = 780;

const OURS: RGBColor = RGBColor(29, 111, 164);
const THEIRS: RGBColor = RGBColor(176, 182, 190);
const INK: RGBColor = RGBColor(40, 44, 52);
const PALE: RGBColor = RGBColor(120, 126, 136);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws them into a file, each with the last of its columns: the one where most is going on.
pub(crate) fn svg(sheets: &[Sheet], path: &Path) -> Result<()> {
    let heights: Vec<u32> = sheets.iter().map(height).collect();
    let root =
        SVGBackend::new(path, (WIDTH, heights.iter().sum::<u32>().max(1))).into_drawing_area();
    root.fill(&WHITE).map_err(failed)?;
    let mut top = 0;
    for (sheet, height) in sheets.iter().zip(heights) {
        let area = root.clone().shrink((0, top as i32), (WIDTH, height));
        panel(sheet, &area)?;
        top += height;
    }
    root.present().map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> Trouble {
    Trouble(format!("the picture cannot be drawn: {error}"))
}

fn height(sheet: &Sheet) -> u32 {
    HEAD + ROW * sheet.rows.len() as u32 + ROW
}

fn panel(sheet: &Sheet, area: &Area<'_>) -> Result<()> {
    let column = sheet.columns.len().saturating_sub(1);
    let head = match sheet.across.as_str() {
        "" => format!("{}: {}", sheet.scenario, sheet.title),
        across => {
            format!("{}: {}, {} {across}", sheet.scenario, sheet.title, sheet.columns[column])
        }
    };
    let better = if sheet.unit.more_is_better() { "more is better" } else { "less is better" };
    write(area, &head, (16, 18), &INK, 20, HPos::Left)?;
    let unit = format!("{}, {better}; powers of ten", sheet.unit.words());
    write(area, &unit, (16, 38), &PALE, 15, HPos::Left)?;
    let medians: Vec<Option<f64>> = (0..sheet.rows.len())
        .map(|row| sheet.quarters(row, column).map(|all| all.median).filter(|it| *it > 0.0))
        .collect();
    let scale = Scale::of(medians.iter().flatten().copied());
    for (at, (row, median)) in sheet.rows.iter().zip(medians).enumerate() {
        let middle = (HEAD + ROW * at as u32 + ROW / 2) as i32;
        write(area, &row.name, (LEFT - 10, middle), &INK, 16, HPos::Right)?;
        let Some(median) = median else {
            let why = row.missing.as_deref().unwrap_or("not measured");
            write(area, why, (LEFT, middle), &PALE, 15, HPos::Left)?;
            continue;
        };
        let end = scale.place(median);
        let colour = if row.ours { OURS } else { THEIRS };
        let bar = Rectangle::new([(LEFT, middle - 8), (end, middle + 8)], colour.filled());
        area.draw(&bar).map_err(failed)?;
        let mut said = short(median);
        if at != sheet.base
            && let Some(ratio) = sheet.ratio(at, column)
        {
            said = format!("{said}   ×{}", short(ratio.median));
        }
        write(area, &said, (end + 8, middle), &INK, 15, HPos::Left)?;
    }
    Ok(())
}

fn write(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    colour: &RGBColor,
    size: i32,
    side: HPos,
) -> Result<()> {
    let style = ("sans-serif", size).into_text_style(area).color(colour);
    area.draw(&Text::new(text.to_owned(), at, style.pos(Pos::new(side, VPos::Center))))
        .map_err(failed)
}

/// From the power of ten below the least to the greatest.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(figures: impl Iterator<Item = f64>) -> Scale {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for figure in figures {
            (low, high) = (low.min(figure.log10()), high.max(figure.log10()));
        }
        match low <= high {
            // The least has a bar as well.
            true => Scale { low: (low - 0.3).floor(), high: high.max((low - 0.3).floor() + 0.1) },
            false => Scale { low: 0.0, high: 1.0 },
        }
    }

    fn place(&self, figure: f64) -> i32 {
        let part = (figure.log10() - self.low) / (self.high - self.low);
        LEFT + (f64::from(RIGHT - LEFT) * part.clamp(0.0, 1.0)) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::tests::sheet;

    #[test]
    fn a_picture_has_a_bar_for_each_that_was_measured() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.svg");
        svg(&[sheet(), sheet()], &path).unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        // Two bars a panel, and the ground.
        assert_eq!(text.matches("<rect").count(), 2 * 2 + 1, "{text}");
        for said in ["socket: uncontended, 16 clients", "theirs", "not installed", "×2.00"] {
            assert_eq!(text.matches(said).count(), 2, "{said}: {text}");
        }
    }

    #[test]
    fn bars_go_by_powers_of_ten() {
        let scale = Scale::of([10.0, 1_000.0].into_iter());
        assert_eq!(scale.place(1_000.0), RIGHT);
        assert_eq!(scale.place(1.0), LEFT);
        let middle = scale.place(10f64.powf(1.5));
        assert!((middle - (LEFT + RIGHT) / 2).abs() <= 1, "{middle}");
        assert_eq!(Scale::of([].into_iter()).place(0.5), LEFT);
        let one = Scale::of([20.0].into_iter()).place(20.0);
        assert!(one > LEFT, "even a single figure has a bar");
    }
}
