//! What is done about callers without a key. Must not contain HTTP.

use std::{fmt, str::FromStr};

/// Which callers without a key are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// Those on this machine, while the service listens there only and no key was ever created.
    #[default]
    UntilTheFirstKey,
    /// Those that call by a loopback name, no web page of another site and no proxy among them; for a service that
    /// only this machine reaches, though it does not listen on a loopback address, as in a container.
    Loopback,
    /// All.
    Everyone,
}

impl Anonymous {
    const ALL: [Self; 3] = [Self::UntilTheFirstKey, Self::Loopback, Self::Everyone];

    fn as_str(self) -> &'static str {
        match self {
            Self::UntilTheFirstKey => "false",
            Self::Loopback => "loopback",
            Self::Everyone => "true",
        }
    }
}

impl fmt::Display for Anonymous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Anonymous {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let name = match text.as_str() {
            "1" | "on" | "yes" => "true",
            "0" | "off" | "no" => "false",
            name => name,
        };
        let found = Self::ALL.into_iter().find(|anonymous| anonymous.as_str() == name);
        found.ok_or_else(|| "must be true, false or loopback".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_as_it_is_written_and_switches_have_their_usual_words() {
        for anonymous in Anonymous::ALL {
            assert_eq!(anonymous.to_string().parse(), Ok(anonymous));
        }
        for (text, expected) in
            [("TRUE", Anonymous::Everyone), ("1", Anonymous::Everyone), ("off", Anonymous::default())]
        {
            assert_eq!(text.parse(), Ok(expected));
        }
        for wrong in ["", "all", "local", "127.0.0.1"] {
            assert!(wrong.parse::<Anonymous>().is_err(), "{wrong}");
        }
    }
}
