"""What a search found: as rows, as a terminal table, as one HTML file."""

from moe_codesign.answers.frontier_rows import ReportRow, report_rows

__all__ = ["ReportRow", "report_rows"]
