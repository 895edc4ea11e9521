//! `--budget flash=64k,ram=32k,macs=1M,instructions=20M`.
//!
//! Takes any of the four keys once, each with a whole or decimal number above 0 and perhaps a suffix: `k` and `M` are 1024 and 1024^2 for bytes,
//! 1000 and 1000^2 for counts; `G` is the next power. Gives a [`Budget`]. Refused: unknown keys, a key given twice, what is no number, zero,
//! and what passes 64 bits.

use crate::search::Budget;

/// Reads the argument of `--budget`.
pub fn parse(text: &str) -> Result<Budget, String> {
    let mut budget = Budget::default();
    for entry in text.split(',') {
        let (key, value) = entry
            .split_once('=')
            .ok_or_else(|| format!("`{entry}` is no KEY=NUMBER; an example is flash=64k,ram=32k"))?;
        let (key, value) = (key.trim(), value.trim());
        let twice = match key {
            "flash" => budget.flash.replace(bytes(key, value)?).is_some(),
            "ram" => budget.ram.replace(bytes(key, value)?).is_some(),
            "macs" => budget.macs.replace(number(key, value, 1000)?).is_some(),
            "instructions" => budget.instructions.replace(number(key, value, 1000)?).is_some(),
            _ => return Err(format!("`{key}` is no budget; there are flash, ram, macs and instructions")),
        };
        if twice {
            return Err(format!("`{key}` is given twice"));
        }
    }
    Ok(budget)
}

fn bytes(key: &str, text: &str) -> Result<usize, String> {
    usize::try_from(number(key, text, 1024)?).map_err(|_| format!("{key}={text} is too large"))
}

/// A number with a suffix that counts in powers of `thousand`, rounded down.
fn number(key: &str, text: &str, thousand: u64) -> Result<u64, String> {
    let (digits, power) = match text.strip_suffix(['k', 'K', 'M', 'G']) {
        Some(digits) if text.ends_with(['k', 'K']) => (digits, 1),
        Some(digits) if text.ends_with('M') => (digits, 2),
        Some(digits) => (digits, 3),
        None => (text, 0),
    };
    let no_number = || format!("{key}={text}: `{text}` is no number such as 65536, 64k or 1.5M");
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) || digits.ends_with('.') {
        return Err(no_number());
    }
    let too_large = || format!("{key}={text} is too large");
    let unit = thousand.pow(power);
    let whole = whole.parse::<u64>().ok().and_then(|whole| whole.checked_mul(unit)).ok_or_else(too_large)?;
    let part = match fraction {
        "" => 0,
        // Digits beyond the unit's resolution change nothing.
        _ => (format!("0.{fraction}").parse::<f64>().map_err(|_| no_number())? * unit as f64) as u64,
    };
    match whole.checked_add(part).ok_or_else(too_large)? {
        0 => Err(format!("{key}={text}: nothing fits into nothing; give a number above 0")),
        number => Ok(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_in_1024_and_counts_in_1000() {
        let budget = parse("flash=64k,ram=1.5M, macs=1M,instructions=2.5G").unwrap();
        let expected = Budget {
            flash: Some(65_536),
            ram: Some(1_572_864),
            macs: Some(1_000_000),
            instructions: Some(2_500_000_000),
        };
        assert_eq!(budget, expected);
        assert_eq!(parse("ram=7").unwrap(), Budget { ram: Some(7), ..Budget::default() });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, part) in [
            ("", "no KEY=NUMBER"),
            ("flash", "no KEY=NUMBER"),
            ("flash=1,", "no KEY=NUMBER"),
            ("stack=1k", "`stack` is no budget"),
            ("ram=1k,ram=2k", "given twice"),
            ("ram=", "no number"),
            ("ram=k", "no number"),
            ("ram=-1", "no number"),
            ("ram=1e6", "no number"),
            ("ram=1.", "no number"),
            ("ram=nan", "no number"),
            ("ram=32kB", "no number"),
            ("ram=0", "above 0"),
            ("macs=0.0001", "above 0"),
            ("macs=99999999999999999999", "too large"),
            ("flash=99999999999G", "too large"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
