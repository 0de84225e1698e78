"""What can be said without attacking a model: detectors, copies in the data, exact truths to compare attacks with."""
