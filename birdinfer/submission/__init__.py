"""Files of a BirdCLEF year: their format, the check against a sample, conversion between years, blends of tables.

In: tables of probabilities [rows, species], or submissions as files. Out: submissions, or what is wrong with them. This
package knows no model.
"""
