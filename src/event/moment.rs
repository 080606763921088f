//! The time of a call, as events spell it.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY: u64 = 86_400;

/// A moment in UTC; before 1970 it is 1970. Displays as `dd/Mon/yyyy:HH:MM:SS +0000`, the Common
/// Log Format that API Gateway uses for `requestTime` and `time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    millis: u64,
}

impl Moment {
    pub(super) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Milliseconds since 1970.
    pub(super) fn millis(self) -> u64 {
        self.millis
    }

    /// Seconds since 1970.
    pub(super) fn seconds(self) -> u64 {
        self.millis / 1000
    }

    /// Year, month (from 0) and day (from 1), by the usual arithmetic over 400-year eras whose years
    /// begin in March, so that the leap day is the last of its year.
    fn date(self) -> (u64, usize, u64) {
        let days = self.seconds() / DAY + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = (from_march + 2) % 12;
        let year = 400 * era + year_of_era + u64::from(month < 2);
        (year, usize::try_from(month).unwrap_or_default(), day)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let month = MONTHS.get(month).copied().unwrap_or("Jan");
        let second = self.seconds() % DAY;
        write!(f, "{day:02}/{month}/{year:04}:{:02}:{:02}:{:02} +0000", second / 3600, second / 60 % 60, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_are_spelled_in_the_common_log_format() {
        for (seconds, expected) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (951_868_800, "01/Mar/2000:00:00:00 +0000"),
            (1_583_348_638, "04/Mar/2020:19:03:58 +0000"),
            (1_704_067_199, "31/Dec/2023:23:59:59 +0000"),
            (1_704_067_200, "01/Jan/2024:00:00:00 +0000"),
            (1_709_164_800, "29/Feb/2024:00:00:00 +0000"),
            (4_107_542_400, "01/Mar/2100:00:00:00 +0000"),
            (4_107_542_399, "28/Feb/2100:23:59:59 +0000"),
        ] {
            let moment = Moment::of(UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(moment.to_string(), expected);
        }
    }

    #[test]
    fn milliseconds_are_kept_and_the_time_before_1970_is_1970() {
        let moment = Moment::of(UNIX_EPOCH + Duration::from_millis(1_583_348_638_390));
        assert_eq!((moment.millis(), moment.seconds()), (1_583_348_638_390, 1_583_348_638));
        assert_eq!(Moment::of(UNIX_EPOCH - Duration::from_secs(9)).millis(), 0);
    }

    #[test]
    fn days_follow_one_another() {
        let mut last = 0;
        for day in 0..80_000u64 {
            let (year, month, date) = Moment { millis: day * DAY * 1000 }.date();
            let this = year * 10_000 + (month as u64 + 1) * 100 + date;
            assert!(this > last && date <= 31, "day {day}: {this} after {last}");
            last = this;
        }
    }
}
