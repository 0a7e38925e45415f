//! Whole numbers within bounds, and the words for when they are not.

use std::ops::RangeInclusive;

/// A number that must lie within bounds.
#[derive(Clone, Debug)]
pub(super) struct Count {
    pub(super) bounds: RangeInclusive<u64>,
    pub(super) too_few: &'static str,
    pub(super) too_many: &'static str,
}

impl Count {
    pub(super) fn parser(self) -> impl Fn(&str) -> Result<u64, String> + Clone + Send + Sync {
        move |text| {
            let number = whole(text)?;
            match number {
                Some(number) if self.bounds.contains(&number) => Ok(number),
                Some(number) if number < *self.bounds.start() => Err(self.too_few.to_owned()),
                _ => Err(self.too_many.to_owned()),
            }
        }
    }
}

/// A whole number, `None` if it is larger than any. `1_000` is 1000.
pub(super) fn whole(text: &str) -> Result<Option<u64>, String> {
    let digits: String = text.chars().filter(|&c| c != '_').collect();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("give a whole number, for example 1000".to_owned());
    }
    Ok(digits.parse().ok())
}
