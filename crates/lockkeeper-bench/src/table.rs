//! Sheets as text, for a terminal and for a document.

use crate::{
    about::About,
    sheet::{Bound, Sheet},
    stats::short,
};
use std::fmt::Write;

/// For a terminal: columns that stand below each other.
pub(crate) fn text(sheet: &Sheet) -> String {
    let lines = cells(sheet);
    let count = lines[0].len();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = format!("\n{}: {} ({})\n", sheet.scenario, sheet.title, describe(sheet));
    for line in lines {
        let mut written = String::new();
        for (at, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[at] - cell.chars().count());
            written = match at {
                0 => format!("  {cell}{pad}"),
                _ => format!("{written}   {pad}{cell}"),
            };
        }
        let _ = writeln!(text, "{}", written.trim_end());
    }
    text
}

/// All sheets for a document, by scenarios.
pub(crate) fn document(about: &About, sheets: &[Sheet]) -> String {
    let mut text = format!("{}\n", about.text());
    let mut scenario = "";
    for sheet in sheets {
        if sheet.scenario != scenario {
            scenario = &sheet.scenario;
            let _ = write!(text, "\n### {scenario}\n");
        }
        let _ = write!(text, "\n{}", markdown(sheet));
    }
    text
}

fn markdown(sheet: &Sheet) -> String {
    let mut lines = cells(sheet).into_iter();
    let mut text = format!("#### {}\n\nIn {}\n\n", sheet.title, describe(sheet));
    let head = lines.next().unwrap_or_default();
    let _ = writeln!(text, "| {} |", head.join(" | "));
    let _ = writeln!(text, "|---|{}", "---:|".repeat(head.len() - 1));
    for (line, row) in lines.zip(&sheet.rows) {
        let mut line = line;
        if row.ours {
            line[0] = format!("**{}**", line[0]);
        }
        let _ = writeln!(text, "| {} |", line.join(" | "));
    }
    text
}

fn describe(sheet: &Sheet) -> String {
    let base = &sheet.rows[sheet.base].name;
    let cells = "median, between the quarters";
    let columns = match sheet.across.as_str() {
        "" => String::new(),
        across => format!("; across: {across}"),
    };
    let ratio = match sheet.rows.len() {
        1 => String::new(),
        _ => format!("; ×: how many times better {base} is"),
    };
    format!("{}: {cells}{ratio}{columns}", sheet.unit.words())
}

fn cells(sheet: &Sheet) -> Vec<Vec<String>> {
    let has_target = (0..sheet.rows.len()).any(|row| sheet.verdict(row).is_some());
    let mut head = vec![String::new()];
    head.extend(sheet.columns.clone());
    if has_target {
        head.push("to reach".to_owned());
    }
    let mut lines = vec![head];
    for (at, row) in sheet.rows.iter().enumerate() {
        let mut line = vec![row.name.clone()];
        for column in 0..sheet.columns.len() {
            line.push(cell(sheet, at, column));
        }
        if let Some(why) = &row.missing {
            line[1] = why.clone();
        }
        if has_target {
            line.push(verdict(sheet, at));
        }
        lines.push(line);
    }
    lines
}

fn cell(sheet: &Sheet, row: usize, column: usize) -> String {
    let Some(all) = sheet.quarters(row, column) else { return "–".to_owned() };
    let mut text = format!("{} ({}–{})", short(all.median), short(all.low), short(all.high));
    if row != sheet.base
        && let Some(ratio) = sheet.ratio(row, column)
    {
        let _ = write!(text, " ×{}", short(ratio.median));
    }
    text
}

fn verdict(sheet: &Sheet, row: usize) -> String {
    let Some(verdict) = sheet.verdict(row) else { return String::new() };
    let bound = match verdict.bound {
        Bound::Ratio(least) => format!("× ≥ {}", short(least)),
        Bound::AtMostRatio(most) => format!("× ≤ {}", short(most)),
        Bound::AtMost(most) => format!("≤ {}", short(most)),
    };
    match verdict.missed.as_slice() {
        [] => format!("{bound}: met"),
        _ if sheet.columns.len() == 1 => format!("{bound}: missed"),
        missed => format!("{bound}: missed at {}", missed.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sheet::tests::sheet;

    #[test]
    fn a_sheet_is_a_table_with_medians_spread_and_ratios() {
        let text = text(&sheet());
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert!(lines[0].starts_with("socket: uncontended (pairs/s: median"), "{text}");
        assert!(lines[0].contains("how many times better ours is"), "{text}");
        let words = |line: &str| line.split("  ").map(str::trim).collect::<Vec<_>>().join("|");
        let squeeze = |line: &str| {
            let words = words(line);
            words.split('|').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("|")
        };
        assert_eq!(squeeze(lines[1]), "1|16|to reach");
        assert_eq!(squeeze(lines[2]), "ours|100 (95.0–110)|300 (295–305)");
        let theirs = "theirs|50.0 (47.5–55.0) ×2.00|150 (148–385) ×2.00|× ≥ 1.50: met";
        assert_eq!(squeeze(lines[3]), theirs);
        assert_eq!(squeeze(lines[4]), "gone|not installed|–");
        let ends: Vec<usize> = lines[2..4].iter().map(|line| line.chars().count()).collect();
        assert!(ends[1] > ends[0], "columns stand below each other: {text}");
    }

    #[test]
    fn the_same_for_a_document() {
        let text = markdown(&sheet());
        assert!(text.starts_with("#### uncontended\n\nIn pairs/s: median"), "{text}");
        assert!(text.contains("\n|  | 1 | 16 | to reach |\n|---|---:|---:|---:|\n"), "{text}");
        assert!(text.contains("\n| **ours** | 100 (95.0–110) | 300 (295–305) |  |\n"), "{text}");
    }
}
