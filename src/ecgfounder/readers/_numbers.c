/* Parsing of whole numbers in a text: the most costly loop of reading HL7 aECG and CardioSoft files.

   In: digits, signs, white space and commas. Out: float64 numbers. `_whole_numbers` of `quantities.py` is the same in Python, and is
   used if this module is not built; all results and errors are the same. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#define MOST_DIGITS 9
#define OTHER_NUMBERS (-1)
#define STRAY_SIGN (-2)

/* The number of numbers, or a negative code. `out` has space for one number for every two characters, and one more. */
static Py_ssize_t parse(const unsigned char *text, Py_ssize_t length, double *out)
{
    Py_ssize_t n = 0, n_commas = 0, i = 0;
    int several_per_comma = 0, too_long = 0, stray_sign = 0, after_digit = 0, after_sign = 0;
    while (i < length) {
        const unsigned char c = text[i];
        if (c >= '0' && c <= '9') {
            long value = 0;
            Py_ssize_t first = i;
            for (; i < length && text[i] >= '0' && text[i] <= '9'; i++)
                if (i - first < MOST_DIGITS)
                    value = 10 * value + (text[i] - '0');
            too_long |= i - first > MOST_DIGITS;
            several_per_comma |= n_commas != n;
            out[n++] = first > 0 && text[first - 1] == '-' ? (double)-value : (double)value;
            after_digit = 1;
            after_sign = 0;
            continue;
        }
        if (c == '-' || c == '+') {
            const int before_digit = i + 1 < length && text[i + 1] >= '0' && text[i + 1] <= '9';
            stray_sign |= after_digit || after_sign || !before_digit;
            after_sign = 1;
        } else if (c == ',') {
            n_commas++;
            after_sign = 0;
        } else if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
            after_sign = 0;
        } else {
            return OTHER_NUMBERS;
        }
        after_digit = 0;
        i++;
    }
    if (n_commas > 0 && (several_per_comma || n_commas > n))
        return OTHER_NUMBERS;
    if (stray_sign)
        return STRAY_SIGN;
    return too_long ? OTHER_NUMBERS : n;
}

static PyObject *whole_numbers(PyObject *module, PyObject *arguments)
{
    Py_buffer text, out;
    Py_ssize_t n = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*w*:whole_numbers", &text, &out))
        return NULL;
    if (out.len / (Py_ssize_t)sizeof(double) < text.len / 2 + 1)
        PyErr_SetString(PyExc_ValueError, "one float64 for every two characters, and one more, are needed");
    else
        n = parse(text.buf, text.len, out.buf);
    PyBuffer_Release(&text);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(n);
}

static PyMethodDef methods[] = {
    {"whole_numbers", whole_numbers, METH_VARARGS,
     "whole_numbers(text, out) -> int\n\n"
     "Fill `out` with the numbers of `text`; returns their number. OTHER_NUMBERS: a number that is too long, an empty field or\n"
     "another character. STRAY_SIGN: a sign that does not begin a number."},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "OTHER_NUMBERS", OTHER_NUMBERS) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "STRAY_SIGN", STRAY_SIGN);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_constants},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_numbers", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__numbers(void)
{
    return PyModuleDef_Init(&definition);
}
