//! One build from request to result: the only place that knows every station.
