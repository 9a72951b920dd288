//! The command line of a test program: that of the standard harness, which takes more than one filter.

use libtest_mimic::Arguments;

/// Options whose values are arguments of their own.
const WITH_VALUES: [&str; 6] = ["--test-threads", "--logfile", "--skip", "--color", "--format", "-Z"];

/// The options and the filters.
pub(super) fn parse(arguments: impl IntoIterator<Item = String>) -> (Arguments, Vec<String>) {
    let (mut options, mut filters) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter();
    // The program's name.
    options.extend(arguments.next());
    while let Some(argument) = arguments.next() {
        if !argument.starts_with('-') {
            filters.push(argument);
            continue;
        }
        let has_value = WITH_VALUES.contains(&argument.as_str());
        options.push(argument);
        if has_value {
            options.extend(arguments.next());
        }
    }
    (Arguments::from_iter(options), filters)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn filters_are_told_from_options() {
        let line =
            ["program", "told::", "--test-threads", "4", "--exact", "--skip=x", "reads::", "--skip", "y"];
        let (arguments, filters) = parse(line.map(str::to_owned));
        assert_eq!(filters, ["told::", "reads::"]);
        assert_eq!((arguments.test_threads, arguments.exact), (Some(4), true));
        assert_eq!((arguments.filter, arguments.skip), (None, vec!["x".to_owned(), "y".to_owned()]));
    }
}
