//! Parses whole numbers from their digits. Must not contain floating-point numbers.

/// The number of digits of the largest number that fits, 2^63 − 1.
const DIGITS_MAX: usize = 19;

/// Parses a number in JSON notation (RFC 8259 §6). Returns `None` if it is not whole or does not fit. `5.0`, `1e2` and
/// `100e-2` are whole, as in JSON Schema (2020-12 Validation §6.1.1). The cost does not depend on the exponent.
#[must_use]
pub fn whole_number(text: &str) -> Option<i64> {
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (rest, 0),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    if whole.is_empty() || leading_zero || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    // The number equals its digits, without the zeros at either end, times a power of ten.
    let digits = || whole.bytes().chain(fraction.bytes());
    let leading = digits().take_while(|digit| *digit == b'0').count();
    let trailing = digits().rev().take_while(|digit| *digit == b'0').count();
    let Some(count) = (whole.len() + fraction.len()).checked_sub(leading + trailing).filter(|n| *n > 0)
    else {
        return Some(0);
    };
    let length = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    let power = exponent.saturating_add(length(trailing)).saturating_sub(length(fraction.len()));
    let power = usize::try_from(power).ok().filter(|power| count.saturating_add(*power) <= DIGITS_MAX)?;
    let zeros = std::iter::repeat_n(b'0', power);
    let number = digits().skip(leading).take(count).chain(zeros);
    let number = number.fold(0_i128, |number, digit| number * 10 + i128::from(digit - b'0'));
    i64::try_from(if negative { -number } else { number }).ok()
}

/// Parses an exponent. One that does not fit saturates, which keeps it out of range.
fn exponent_of(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    if digits.is_empty() || !is_digits(digits) {
        return None;
    }
    let size = digits.parse().unwrap_or(i64::MAX);
    Some(if negative { -size } else { size })
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The longest exponent that the oracle writes out.
    const WRITTEN_MAX: i32 = 400;

    /// Writes the number out in full and checks the digits after the decimal point.
    fn oracle(text: &str) -> Option<i64> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let exponent: i32 = exponent.parse().expect("small");
        let zeros = "0".repeat(usize::try_from(WRITTEN_MAX).expect("positive"));
        let point = i32::try_from(zeros.len() + whole.len()).expect("short") + exponent;
        let written = format!("{zeros}{whole}{fraction}{zeros}");
        let (whole, fraction) = written.split_at(usize::try_from(point).expect("within the zeros"));
        let number = format!("{sign}{}", whole.trim_start_matches('0'));
        let number = if number == sign { "0" } else { number.as_str() };
        fraction.bytes().all(|digit| digit == b'0').then(|| number.parse().ok()).flatten()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_096))]

        #[test]
        fn a_number_is_what_it_is_when_it_is_written_out(
            mantissa in r"-?(0|[1-9][0-9]{0,20}|[1-9]0{0,20})(\.([0-9]{1,24}|0{1,24}|[0-9]0{0,20}))?",
            exponent in prop::option::of((r"[eE][+-]?0{0,3}", 0..30_i32)),
        ) {
            let exponent = exponent.map(|(sign, size)| format!("{sign}{size}")).unwrap_or_default();
            let text = format!("{mantissa}{exponent}");
            prop_assert_eq!(whole_number(&text), oracle(&text), "{}", text);
        }

        #[test]
        fn a_whole_number_is_itself_in_every_notation(number: i64, shift in 0..40_usize) {
            let zeros = "0".repeat(shift);
            let forms = [number.to_string(), format!("{number}.0{zeros}"), format!("{number}{zeros}e-{shift}")];
            for text in forms.iter().filter(|text| number != 0 || !text.starts_with("00")) {
                prop_assert_eq!(whole_number(text), Some(number), "{}", text);
            }
        }
    }

    #[test]
    fn an_exponent_costs_nothing_however_large_it_is() {
        let nines = "9".repeat(100);
        for wrong in
            ["1e400", "1e-400", "1e999999999", "-1e-999999999", &format!("1e{nines}"), &format!("1e-{nines}")]
        {
            assert_eq!(whole_number(wrong), None, "{wrong}");
        }
        for zero in ["0", "-0", "0.0", "0e5", "0e999999999", &format!("0.00e-{nines}")] {
            assert_eq!(whole_number(zero), Some(0), "{zero}");
        }
        let zeros = "0".repeat(100_000);
        assert_eq!(whole_number(&format!("0.{zeros}7e100001")), Some(7));
        assert_eq!(whole_number(&format!("7{zeros}e-100000")), Some(7));
    }

    #[test]
    fn what_json_does_not_write_is_no_number() {
        for wrong in [
            "", "-", "+5", "05", "-05", ".5", "5.", "5.e1", "5e", "5e+", "0x5", "5 ", "5_0", "∞", "NaN", "e5",
        ] {
            assert_eq!(whole_number(wrong), None, "{wrong}");
        }
        assert_eq!(whole_number("-9223372036854775808"), Some(i64::MIN));
        assert_eq!(whole_number("9223372036854775808"), None);
    }
}
