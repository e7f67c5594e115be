# SPDX-License-Identifier: Apache-2.0
"""The results as text tables and as the tables of docs/performance.md."""
import os
import platform
import re
import subprocess
import time

from table import METRICS

COLUMNS = ("wall", "cpu", "rate", "cpu_op", "p50", "p99", "calls", "peak", "disk")


def machine():
    model = re.search(r"model name\s*:\s*(.*)", open("/proc/cpuinfo").read())
    memory = re.search(r"MemTotal:\s*(\d+)", open("/proc/meminfo").read())
    return {"processors": os.cpu_count(), "model": model[1] if model else platform.machine(), "kernel": platform.release(),
            "memory_gib": round(int(memory[1]) / 1048576, 1) if memory else None, "load_before": os.getloadavg()[0],
            "date": time.strftime("%Y-%m-%d", time.gmtime())}


def commit(source):
    done = subprocess.run(["git", "-C", source, "rev-parse", "--short", "HEAD"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode().strip()


def number(value, digits):
    if value is None:
        return ""
    return f"{value:,.{digits}f}".replace(",", " ")


def case(result, point):
    if point is None:
        return result["title"]
    return f"{result['title']}, {result['axis']} {point}" if result["axis"] else f"{result['title']}: {point}"


def flat_rows(results, labels):
    """[header], [rows] of cells: one row a case and contender."""
    columns = [c for c in COLUMNS if any(row.get(c) is not None for result in results for row in result["rows"])]
    header = ["case", "program"] + [METRICS[c].title for c in columns] + ["peer / ours"]
    rows = []
    for result in results:
        last = None
        for row in sorted(result["rows"], key=lambda row: list(dict.fromkeys(r["point"] for r in result["rows"])).index(row["point"])):
            name = case(result, row["point"])
            cells = [name if name != last else "", labels[row["contender"]]]
            for column in columns:
                value = number(row.get(column), METRICS[column].digits)
                cells.append(f"**{value}**" if value and column == result["primary"] else value)
            rows.append(cells + [number(row.get("ratio"), 2)])
            last = name
    return header, rows


def law_rows(result, labels):
    """A law: one row a point, one column a contender, and the exponent below."""
    names = list(dict.fromkeys(row["contender"] for row in result["rows"]))
    values = {(row["point"], row["contender"]): row.get(result["primary"]) for row in result["rows"]}
    digits = METRICS[result["primary"]].digits
    header = [result["axis"]] + [labels[name] for name in names]
    rows = [[f"{point:,}".replace(",", " ")] + [number(values.get((point, name)), digits) for name in names]
            for point in dict.fromkeys(row["point"] for row in result["rows"])]
    rows.append(["grows with the power"] + [number(result["exponents"].get(name), 2) for name in names])
    return header, rows


def markdown_table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(cells) + " |" for cells in rows])


def text_table(header, rows):
    rows = [[cell.replace("**", "") for cell in cells] for cells in rows]
    widths = [max(len(cells[i]) for cells in [header] + rows) for i in range(len(header))]
    return "\n".join("  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(cells, widths))).rstrip()
                     for cells in [header] + rows)


def section_parts(report, section, table, figures=None):
    """The text of a section: the flat table, then each law with its plot."""
    labels = report["contenders"]
    flat = [result for result in report["results"] if result["section"] == section and not result["law"] and result["rows"]]
    laws = [result for result in report["results"] if result["section"] == section and result["law"] and result["rows"]]
    parts = []
    if flat:
        parts.append(table(*flat_rows(flat, labels)))
    for result in laws:
        title = f"{result['title']} ({METRICS[result['primary']].title}; `{result['name']}`)" if figures else f"{result['title']} ({METRICS[result['primary']].title})"
        parts.append(title + ("" if not figures else ":"))
        parts.append(table(*law_rows(result, labels)))
        plot = result["name"].replace("/", "-") + ".svg"
        if figures and os.path.exists(os.path.join(figures[0], plot)):
            parts.append(f"![{result['title']}]({figures[1]}/{plot})")
    return "\n\n".join(parts)


def print_text(report):
    for section in dict.fromkeys(result["section"] for result in report["results"]):
        print(f"\n== {section}\n")
        print(section_parts(report, section, text_table))
    if report["not_yet"]:
        print("\nNot yet, as ours lacks it:")
        for entry in report["not_yet"]:
            print(f"  {entry['name']:34} {', '.join(entry['missing'])}")


def machine_text(report):
    m = report["machine"]
    peers = ", ".join(label for name, label in report["contenders"].items() if name != "spindle")
    return (f"Machine: {m['processors']} processors ({m['model']}), {m['memory_gib']} GiB, Linux {m['kernel']}; load when it began {m['load_before']:.2f}. "
            f"Peers: {peers}. {m['date']}, commit {report['commit']}.")


def write_markdown(report, path, figures_directory):
    """Replaces what stands between `<!-- figures: WHAT -->` and `<!-- end of figures -->` for every WHAT that was measured: "machine", "not-yet", or a
    section. The rest of the page is left alone, and so are sections that were not measured."""
    page = open(path, encoding="utf-8").read()
    directory = figures_directory and os.path.relpath(figures_directory, os.path.dirname(os.path.abspath(path)))
    done = set()

    def replaced(match):
        what = match[1]
        if what == "machine":
            content = machine_text(report)
        elif what == "not-yet":
            content = "\n".join(f"- {entry['title']} (`{entry['name']}`)" for entry in report["not_yet"]) or "Nothing."
        else:
            content = section_parts(report, what, markdown_table, (figures_directory, directory) if figures_directory else None)
            if not content:
                return match[0]
            if figures_directory and os.path.exists(os.path.join(figures_directory, what + ".svg")):
                content += f"\n\n![peer against ours]({directory}/{what}.svg)"
        done.add(what)
        return f"<!-- figures: {what} -->\n{content}\n<!-- end of figures -->"

    page = re.sub(r"<!-- figures: ([a-z-]+) -->\n.*?<!-- end of figures -->", replaced, page, flags=re.S)
    with open(path, "w", encoding="utf-8") as out:
        out.write(page)
    return [section for section in dict.fromkeys(result["section"] for result in report["results"]) if section not in done]
