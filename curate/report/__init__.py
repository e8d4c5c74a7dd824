"""The report: one HTML file that shows what a pool decided, with pictures, and needs nothing but itself."""

from curate.report.document import report_diff, report_manifest, write_report
from curate.report.text import Table

__all__ = ["Table", "report_diff", "report_manifest", "write_report"]
