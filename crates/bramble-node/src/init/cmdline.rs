//! What the kernel's command line says to pid 1.

use bramble_api::names::Slot;

/// The arguments that are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cmdline {
    /// `bramble.slot=a`: the slot where no boot loader names one.
    pub slot: Option<Slot>,
    /// `bramble.rescue`: start no slot, say what is wrong with them.
    pub rescue: bool,
    /// `bramble.marks`: print a line after each durable act.
    pub marks: bool,
}

/// Reads `/proc/cmdline`. Of an argument given twice the last one counts, as with the kernel's own.
pub fn parse(line: &str) -> Cmdline {
    let mut found = Cmdline::default();
    for word in line.split_whitespace() {
        match word {
            "bramble.slot=a" => found.slot = Some(Slot::A),
            "bramble.slot=b" => found.slot = Some(Slot::B),
            "bramble.rescue" => found.rescue = true,
            "bramble.marks" => found.marks = true,
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_found_among_others() {
        assert_eq!(parse("console=ttyS0 quiet\n"), Cmdline::default());
        let all = parse("ro bramble.slot=a console=ttyS0 bramble.marks bramble.slot=b\n");
        assert_eq!(all, Cmdline { slot: Some(Slot::B), rescue: false, marks: true });
        assert!(parse("quiet bramble.rescue").rescue);
        assert_eq!(parse("bramble.slot=c").slot, None);
    }
}
