//! Which callers without a key are served. Must not contain HTTP.

use strum::{Display, EnumString};

/// Which callers without a key are served, by its name on the command line.
#[derive(Clone, Copy, Debug, Default, Display, EnumString, PartialEq, Eq)]
#[strum(ascii_case_insensitive, parse_err_ty = String, parse_err_fn = rule)]
pub enum Anonymous {
    /// Callers on this machine, until the first key is created, if the service listens on a loopback address.
    #[default]
    #[strum(to_string = "false", serialize = "0", serialize = "off", serialize = "no")]
    UntilTheFirstKey,
    /// Callers that use a loopback name, except web pages of other sites and proxies. For a service that only this
    /// machine can reach although it does not listen on a loopback address, as in a container.
    #[strum(to_string = "loopback")]
    Loopback,
    /// All callers.
    #[strum(to_string = "true", serialize = "1", serialize = "on", serialize = "yes")]
    Everyone,
}

fn rule(_: &str) -> String {
    "must be true, false or loopback".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_as_it_is_written_and_switches_have_their_usual_words() {
        for (name, anonymous) in [
            ("false", Anonymous::UntilTheFirstKey),
            ("loopback", Anonymous::Loopback),
            ("true", Anonymous::Everyone),
        ] {
            assert_eq!((anonymous.to_string().as_str(), name.parse()), (name, Ok(anonymous)));
        }
        for (text, expected) in
            [("TRUE", Anonymous::Everyone), ("1", Anonymous::Everyone), ("off", Anonymous::default())]
        {
            assert_eq!(text.parse(), Ok(expected));
        }
        for wrong in ["", "all", "local", "127.0.0.1"] {
            assert_eq!(wrong.parse::<Anonymous>(), Err(rule(wrong)), "{wrong}");
        }
    }
}
