//! What the firmware's file says: where symbols are, and how many bytes go to flash.

use super::Error;
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, SectionKind, SymbolKind, elf};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A linked firmware.
#[derive(Clone, Debug)]
pub struct Image {
    path: PathBuf,
    flash_bytes: u64,
    symbols: BTreeMap<String, u64>,
    functions: Vec<(String, Vec<u16>)>,
}

impl Image {
    /// Reads an ELF file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.into(), source })?;
        let refuse = |error: object::Error| Error::Image { path: path.into(), reason: error.to_string() };
        let file = object::File::parse(bytes.as_slice()).map_err(refuse)?;
        let loaded = |flags| matches!(flags, SectionFlags::Elf { sh_flags, .. } if sh_flags & u64::from(elf::SHF_ALLOC) != 0);
        let in_flash = file
            .sections()
            .filter(|section| loaded(section.flags()) && section.kind() != SectionKind::UninitializedData);
        let named =
            file.symbols().filter_map(|symbol| Some((symbol.name().ok()?.to_owned(), symbol.address())));
        let code = |symbol: object::Symbol<'_, '_>| {
            // The lowest bit of a function's address says Thumb.
            let section = file.section_by_index(symbol.section_index()?).ok()?;
            let bytes = section.data_range(symbol.address() & !1, symbol.size()).ok()??;
            let halfwords = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            Some((symbol.name().ok()?.to_owned(), halfwords.collect()))
        };
        let functions =
            file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0);
        Ok(Self {
            path: path.into(),
            functions: functions.filter_map(code).collect(),
            flash_bytes: in_flash.map(|section| section.size()).sum(),
            symbols: named.collect(),
        })
    }

    /// Bytes that are programmed into flash: every loaded section with contents, vector table and initial values of statics included.
    pub fn flash_bytes(&self) -> u64 {
        self.flash_bytes
    }

    /// The value of a symbol.
    pub fn symbol(&self, name: &str) -> Result<u64, Error> {
        let missing =
            || Error::Image { path: self.path.clone(), reason: format!("there is no symbol `{name}`") };
        self.symbols.get(name).copied().ok_or_else(missing)
    }

    /// Halfwords of the function whose mangled name has this path, the module first: `["product", "tile"]`.
    pub fn function(&self, path: &[&str]) -> Result<&[u16], Error> {
        let mangled: String = path.iter().map(|part| format!("{}{part}", part.len())).collect();
        let missing = || Error::Image {
            path: self.path.clone(),
            reason: format!("there is no function `{}`", path.join("::")),
        };
        // After the path stands the hash of the compiler's older mangling, or nothing.
        let found = self.functions.iter().find(|(name, _)| {
            name.split_once(&mangled).is_some_and(|(_, rest)| rest.is_empty() || rest.starts_with("17h"))
        });
        found.map(|(_, code)| code.as_slice()).ok_or_else(missing)
    }

    /// Helpers of the compiler for floating-point arithmetic that is done in software (`__aeabi_fmul`, `__aeabi_dadd`, conversions, ...).
    pub fn soft_float_helpers(&self) -> Vec<&str> {
        self.symbols.keys().map(String::as_str).filter(|name| is_soft_float(name)).collect()
    }
}

/// The run-time ABI's names for float arithmetic: `f...` and `d...` on float and double, `i2f`, `ul2d` and so on from integers.
fn is_soft_float(symbol: &str) -> bool {
    let Some(helper) = symbol.strip_prefix("__aeabi_") else { return false };
    helper.starts_with("cf")
        || helper.starts_with("cd")
        || helper.starts_with('f')
        || helper.starts_with('d')
        || ["i2f", "i2d", "ui2f", "ui2d", "l2f", "l2d", "ul2f", "ul2d"].contains(&helper)
}

#[cfg(test)]
mod tests {
    use super::is_soft_float;

    #[test]
    fn float_helpers_are_told_from_integer_ones() {
        for float in
            ["__aeabi_fmul", "__aeabi_dadd", "__aeabi_i2f", "__aeabi_ul2d", "__aeabi_f2iz", "__aeabi_cfcmple"]
        {
            assert!(is_soft_float(float), "{float}");
        }
        for integer in
            ["__aeabi_uidiv", "__aeabi_idivmod", "__aeabi_lmul", "__aeabi_memcpy", "__aeabi_llsl", "fmul"]
        {
            assert!(!is_soft_float(integer), "{integer}");
        }
    }
}
