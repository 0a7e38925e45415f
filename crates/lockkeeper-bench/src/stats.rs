//! Figures of several rounds in a few words: the median, and where the middle half lies.

/// The median and the quarters of some figures.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub(crate) struct Quarters {
    /// A quarter lies below.
    pub(crate) low: f64,
    /// Half lies below.
    pub(crate) median: f64,
    /// Three quarters lie below.
    pub(crate) high: f64,
}

impl Quarters {
    /// Of so many figures as there are; of none there are no quarters.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Quarters> {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |share| at(&sorted, share);
        Some(Quarters { low: at(0.25)?, median: at(0.5)?, high: at(0.75)? })
    }
}

/// What stands at a share of the way from the least to the greatest; between two it is mixed.
pub(crate) fn at(sorted: &[f64], share: f64) -> Option<f64> {
    let place = sorted.len().checked_sub(1)? as f64 * share;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

/// A figure with two or three digits that count, and `k` or `M` where it is large.
pub(crate) fn short(figure: f64) -> String {
    let (figure, end) = match figure.abs() {
        size if size >= 999_500.0 => (figure / 1e6, " M"),
        size if size >= 9_995.0 => (figure / 1e3, " k"),
        _ => (figure, ""),
    };
    let digits = match figure.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.095 => 2,
        size if size >= 0.0095 => 3,
        _ => 4,
    };
    format!("{figure:.digits$}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quarters_are_those_of_the_sorted_figures() {
        let quarters = Quarters::of([5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!(quarters, Some(Quarters { low: 2.0, median: 3.0, high: 4.0 }));
        let even = Quarters::of([4.0, 1.0, 2.0, 3.0]).map(|quarters| quarters.median);
        assert_eq!(even, Some(2.5), "the middle of an even number lies between two");
        let one = Quarters::of([7.0]);
        assert_eq!(one, Some(Quarters { low: 7.0, median: 7.0, high: 7.0 }));
        assert_eq!(Quarters::of([]), None);
    }

    #[test]
    fn figures_are_written_short() {
        let written = |figure: f64| short(figure);
        assert_eq!(written(0.0), "0");
        assert_eq!(written(0.834), "0.83");
        assert_eq!(written(0.0834), "0.083");
        assert_eq!(written(0.00123), "0.0012");
        assert_eq!(written(12.34), "12.3");
        assert_eq!(written(999.6), "1000");
        assert_eq!(written(9_994.0), "9994");
        assert_eq!(written(9_996.0), "10.0 k");
        assert_eq!(written(12_345.0), "12.3 k");
        assert_eq!(written(5_400_000.0), "5.40 M");
    }
}
