import streamlit as st

st.session_state.setdefault("count", 0)
if st.button("Count"):
    st.session_state.count += 1
st.write(f"count is {st.session_state.count}")
st.write(f"token is {st.context.headers.get('Authorization')}")
file = st.file_uploader("File")
if file:
    st.write(f"file has {len(file.getvalue())} bytes")
